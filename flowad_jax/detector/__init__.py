"""What training writes and inference reads: a detector, its state and its calibration."""
