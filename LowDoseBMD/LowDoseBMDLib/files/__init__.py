"""Files in and out. Reading starts at ``files.read.read_ct``."""
