"""The WSP* front: Windows Sockets 2 provider functions, name for name, over the provider seam."""
