"""Find faces and tell who wears a mask: what the scripts share."""
