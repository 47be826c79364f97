# Changes its objects all the time, with pauses of a few milliseconds, until its standard input ends.
import random
import sys
import threading
import time


class Owner:
    pass


dictionary, owner, classes, items = {}, Owner(), [], []
number = 0


def step():
    global number
    number += 1
    dictionary["key_%d" % number] = "value_%d" % number
    for key in list(dictionary)[:-20]:
        del dictionary[key]
    setattr(owner, "attribute_%d" % (number % 25), "content_%d" % (number % 25))
    if number % 3 == 0 and hasattr(owner, "attribute_%d" % (number % 17)):
        delattr(owner, "attribute_%d" % (number % 17))
    if number % 5 == 0:
        classes.append(type("Class_%d" % number, (Owner,), {"__module__": "made"}))
        del classes[:-5]
    items.append("item_%d" % number)
    if len(items) > random.randrange(5, 50):
        del items[:]
    garbage = ["garbage_%d" % value for value in range(5)]
    del garbage


def change():
    while True:
        for _ in range(random.randrange(1, 200)):
            step()
        time.sleep(random.random() * 0.01)


step()
threading.Thread(target=change, daemon=True).start()
print([id(dictionary), id(owner), id(classes), id(items)], flush=True)
sys.stdin.read()
