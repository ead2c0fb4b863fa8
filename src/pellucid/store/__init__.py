"""Where does it live? Files that are whole or absent."""

from pellucid.store.files import read_tensors, whole_file, whole_folder, write_bytes, write_tensors, write_text

__all__ = ["read_tensors", "whole_file", "whole_folder", "write_bytes", "write_tensors", "write_text"]
