"""What the compilers for GPUs and TPUs make of a program, read without having one."""
