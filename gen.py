import json,re,textwrap
# names of the unconditional rule, read from the stored profile
