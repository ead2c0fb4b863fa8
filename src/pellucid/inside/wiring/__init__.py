"""What is a unit made of, what feeds it, whom does it feed, and what is it needed for?"""
