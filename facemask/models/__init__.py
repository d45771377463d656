"""Networks: their files, how they run, and what they detect and classify."""
