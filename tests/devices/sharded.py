"""Updates and training on one device, or sharded over eight; run by ``test_many_devices``.

``python -m tests.devices.sharded one|auto|explicit`` prints one line of JSON.
"""

import json, time
import math
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmtl
from tests.devices import problem

COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|"
    r"collective-broadcast)(?:-start)?\("
)
_T0=time.time()
def log(*a): print(round(time.time()-_T0,2),*a,file=sys.stderr,flush=True)


def first_divisible(shape, axis, size):
    dims = [axis if n % size == 0 else None for n in shape]
    return [d if dims.index(axis) == i else None for i, d in enumerate(dims)] if axis in dims else dims


def last_divisible(shape, axis, size, taken):
    dims = list(taken)
    for i in reversed(range(1, len(shape))):
        if dims[i] is None and shape[i] % size == 0:
            dims[i] = axis
            break
    return dims


LAYOUTS = {
    "data": ((8,), ("data",), lambda s: [None] * len(s), "data"),
    "fsdp": ((8,), ("data",), lambda s: first_divisible(s, "data", 8), "data"),
    "tensor": ((8,), ("model",), lambda s: last_divisible(s, "model", 8, [None] * len(s)), None),
    "fsdp_tensor": ((4, 2), ("data", "model"), lambda s: last_divisible(s, "model", 2, first_divisible(s, "data", 4)), "data"),
}


def run(name, kind):
    if name == "one":
        place = lambda tree, spec_of: jax.tree.map(jnp.asarray, tree)
        dense = jnp.matmul
        p=problem.params(); b=problem.batch()
        params=place(p,None); batch=place(b,None); put_grads=lambda g: place(g,None)
    else:
        shape, names, spec_of, batch_axis = LAYOUTS[name]
        mesh = jax.make_mesh(shape, names, axis_types=(kind,) * len(shape))
        jax.set_mesh(mesh)
        def put(x, dims): return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*dims)))
        params = jax.tree.map(lambda x: put(x, spec_of(x.shape)), problem.params())
        batch = jax.tree.map(lambda x: put(x, [batch_axis]), problem.batch())
        put_grads = lambda g: jax.tree.map(lambda x: put(x, [None, *spec_of(x.shape[1:])]), g)
        dense = jnp.matmul
        if kind == AxisType.Explicit:
            def dense(x, w): return jnp.einsum("bi,io->bo", x, w, out_sharding=PartitionSpec(batch_axis))
    out={}
    for m in problem.UPDATE_METHODS if "u" in sys.argv[2] else ():
        bal=problem.make(m)
        try:
            state=jax.jit(bal.init)(params)
            grads=put_grads(problem.stacked_grads(0))
            c=jax.jit(lambda g,s,l: bal.update(g,s,losses=l)).lower(grads,state,jnp.array(problem.LOSSES)).compile()
            u,s=c(grads,state,jnp.array(problem.LOSSES))
            jax.block_until_ready(u)
            cols=[re.sub(r"\{.*?\}","",a)+" "+b for a,b in COLLECTIVE.findall(c.as_text())]
            log(name,m,cols)
        except Exception as e: log(name,m,"FAILED",str(e)[:300])
    for m in problem.TRAINED_METHODS:
        try:
            opt,step=problem.make_step(problem.make_losses_fn(dense),m)
            st=jax.jit(opt.init)(params)
            step=jax.jit(step)
            q=params; L=[]
            for _ in range(5):
                q,st,l=step(q,st,batch); jax.block_until_ready(q); L.append(np.asarray(l))
            bad=[jax.tree_util.keystr(k) for k,(a,b2) in jax.tree_util.tree_leaves_with_path(jax.tree.map(lambda a,b:(a,b),q,params),is_leaf=lambda x:isinstance(x,tuple)) if not a.sharding.is_equivalent_to(b2.sharding,a.ndim)]
            log(name,m,"trained",L[-1],bad)
        except Exception as e: log(name,m,"FAILED",str(e)[:1500])


jaxmtl.use_safe_cpu_compiler()
kind={"auto":AxisType.Auto,"explicit":AxisType.Explicit,"one":None}[sys.argv[1]]
for name in (["one"] if kind is None else LAYOUTS):
    run(name,kind)
