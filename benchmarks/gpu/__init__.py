"""What only a GPU can show: bits, kernels, attention, waits, speed."""
