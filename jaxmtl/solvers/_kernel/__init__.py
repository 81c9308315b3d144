"""Programs of small arrays, in the operations that a GPU kernel has (Triton's, by way of Pallas).

A kernel has no gather, no sort and no linear algebra, and the sizes of its arrays' axes are powers
of two. So each axis is padded to a power of two with meaningless numbers, which every operation
along an axis leaves out. Entries are selected by masks, and a factorisation is a loop of rank-one
steps. In registers of one block this costs little, and the whole program is one launch.

A rule implements an operation of a program (``eqn``) with operations of a kernel, from padded
arrays to padded arrays; ``eqn`` has the shapes without the padding.
"""
