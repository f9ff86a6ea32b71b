"""What a person or another program reads: HTML, pictures, JSON and CSV of one measurement."""
