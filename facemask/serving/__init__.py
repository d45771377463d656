"""The HTTP server that the pages share, and who may see them."""
