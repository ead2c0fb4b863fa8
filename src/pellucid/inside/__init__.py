"""What does this layer or unit look for?"""
