"""The numbers of a small network one by one, and every path between them."""
