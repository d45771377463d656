"""Write both networks for other runtimes: phones, Edge TPUs, NPUs."""
