"""Data to learn from, a module each.

`plane` has points in the plane, `scenes` painted pictures with captions, `digits` small real
images, `folder` your own captioned images; `batches` shuffles any of them without end, `cache`
keeps what an encoder makes of them.
"""
