"""What watches."""
