"""Measures of the platform beside the floor: ratios within one run, on whatever machine this is."""
