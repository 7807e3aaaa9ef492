"""Keras's own tests, which ship inside the installed package, with our trainer in the place of the stock one."""
