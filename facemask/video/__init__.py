"""Read, track, show and write video."""
