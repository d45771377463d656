"""Detection in image files: what receives the faces of each image."""
