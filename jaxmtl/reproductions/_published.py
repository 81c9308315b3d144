"""The published numbers of all tables."""

# problem -> row -> mean and standard deviation, None where there was one seed or none was given;
# ConFIG's rows are known by the learning rate too.
PUBLISHED = {
    "helmholtz": {
        "equal": (0.0609, 0.0231),
        "lr_annealing": (0.0066, 0.0025),
        "ntk": (0.0358, None),
        "pcgrad": (0.0109, 0.0031),
        "mgda": (0.7590, None),
        "cagrad": (0.0735, None),
        "aligned_mtl": (0.6570, None),
        "MultiAdam": (0.0211, None),
        "conflict_free": (0.0029, 0.0005),
    },
    "klein_gordon": {
        "equal": (0.0792, 0.0386),
        "lr_annealing": (0.0069, 0.0037),
        "ntk": (0.0223, None),
        "pcgrad": (0.0286, 0.0064),
        "mgda": (0.6690, None),
        "cagrad": (0.1850, None),
        "aligned_mtl": (0.5571, None),
        "MultiAdam": (0.0228, None),
        "conflict_free": (0.0069, 0.0027),
    },
    "burgers": {
        ("Adam", 1e-4): (0.0310, None),
        ("ConFIG", 1e-4): (0.00638, None),
        ("M-ConFIG", 5e-4): (0.00186, None),
    },
    # Not an error but delta-m in percent, as FAMO's table has it.
    "qm9": {
        "equal": (177.6, None),
        "real_time_loss": (77.8, None),
        "rlw": (203.8, None),
        "dwa": (175.3, None),
        "uncertainty": (108.0, None),
        "mgda": (120.5, None),
        "pcgrad": (125.7, None),
        "cagrad": (112.8, None),
        "imtl_g": (77.2, None),
        "nash_mtl": (62.0, None),
        "famo": (58.5, None),
    },
}
