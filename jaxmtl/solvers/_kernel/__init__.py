"""Programs of small arrays, in the operations that a GPU kernel has (Triton's, by way of Pallas).

A kernel has no gather, no sort and no linear algebra, and its arrays' axes are powers of two. So
each axis is filled up to one, with numbers of no meaning, which every operation that looks along
an axis leaves out; an entry is found by a mask, a factorisation is a loop of rank-one steps. In
registers of one block that costs little, and the whole program is one launch.

A rule makes an operation of a program (``eqn``) out of those of a kernel, from filled arrays to
filled arrays; the operation tells the shapes without the filling.
"""
