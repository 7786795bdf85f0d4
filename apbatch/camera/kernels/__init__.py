"""Vector code on blocks of images, from which the functions of `apbatch.camera` are compiled (docs/kernels.md)."""
