"""Flow specifications at work: token buckets, peak rates, admission against a capacity."""
