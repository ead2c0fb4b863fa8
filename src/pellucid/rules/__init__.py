"""What does one operation send back?"""
