"""Train the mask classifier."""
