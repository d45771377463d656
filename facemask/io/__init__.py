"""Read and write image files and records."""
