"""Data in memory, data that come batch by batch, batches that a plan draws."""
