"""What people look at: live table, listing, compare, report page, W&B dashboard."""
