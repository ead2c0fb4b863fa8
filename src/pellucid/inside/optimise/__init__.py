"""Pictures made by going uphill: which picture a unit, a layer or a class would like best."""
