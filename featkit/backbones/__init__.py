"""What a backbone is, and every way to get one."""
