"""`wristworld data`: what recordings hold, whether they are whole, and the same in another format."""
