"""A jetson_clocks for tests, with the habits of the real one, over a recorded tree. Python 3.6, as what it is for.

It says `Error` and ends with 0, asks before it overwrites, and splits its arguments at blanks. It pins GPU and CPUs.
"""

import os
import stat

_SCRIPT = """#!/bin/sh
PATH=/usr/bin:/bin
here={here}
root={root}
echo "$*" >> $here/calls
gpu=$(echo $root/sys/class/devfreq/*.g*)
lowest() {{ ls $root/sys/class/devfreq/*/min_freq $root/sys/devices/system/cpu/cpu*/cpufreq/scaling_min_freq; }}
main() {{
    case "$1" in
    --store)
        if [ -e $2 ]; then echo "File $2 already exists. Can I overwrite it? Y/N:"; read answer || exit 1; fi
        {store}
        for file in $(lowest 2>/dev/null); do echo "$file:$(cat $file)" >> $2; done ;;
    --restore)
        if [ ! -e $2 ]; then echo "Error: $2 file not found !"; exit 1; fi
        {restore}
        while IFS=: read file value; do
            echo $value > $file; echo $value > $(echo $file | sed s/min_freq/cur_freq/)
        done < $2 ;;
    "")
        {pin}
        for file in $(lowest 2>/dev/null); do
            cat $(echo $file | sed s/min_freq/max_freq/) > $file; cat $file > $(echo $file | sed s/min_freq/cur_freq/)
        done ;;
    esac
}}
main $@
exit 0
"""


def install(folder: str, root: str, store: str = ":", pin: str = ":", restore: str = ":") -> str:
    """Path of a jetson_clocks in a folder; a step of it may do something else first. `calls` beside it lists them."""
    path = os.path.join(str(folder), "jetson_clocks")
    with open(path, "w") as stream:
        stream.write(_SCRIPT.format(here=folder, root=root, store=store, pin=pin, restore=restore))
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
    return path
