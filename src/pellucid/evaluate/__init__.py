"""Can this explanation be trusted?"""
