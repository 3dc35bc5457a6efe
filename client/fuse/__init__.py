"""Drivers: the only place that knows the kernel or pyfuse3. They translate, nothing else."""
