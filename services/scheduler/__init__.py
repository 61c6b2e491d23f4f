"""Owns schedules; hears ends, rejections and removals, and asks for runs by the clock."""
