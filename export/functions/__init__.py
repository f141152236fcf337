"""Functions of PyTorch that exporters refuse, approximate or misread, each with an exact form. One function a file."""
