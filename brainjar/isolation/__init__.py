"""Thin files that touch the kernel, one job each: limits, CPUs, ties between processes."""
