"""Operations that take more memory traffic than they need when XLA compiles them, and kernels that take less.

A module has one public function and, beside it, its XLA form: for every device and shape that the kernel is not for,
and for gradients. `choice.takes_kernel` decides. Kernels are Pallas's Mosaic GPU, for NVIDIA's Hopper; it is imported
when a kernel is built, for that takes a second.
"""
