"""Service discovery: where targets are found."""
