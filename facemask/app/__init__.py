"""A page to try detection in: images and a camera of the browser."""
