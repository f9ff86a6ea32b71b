"""The two published networks. Nothing is imported here: torch and MONAI load only when a network is built."""
