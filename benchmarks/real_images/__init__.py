"""Every method on real images under one budget: which one to take, and on what evidence."""
