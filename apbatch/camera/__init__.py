"""Camera geometry, calibration, cleaning, Hillas parameters, grids on whole batches of images."""
