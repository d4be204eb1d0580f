"""The tutorials' datagram client: says hello, prints the answer.

usage: udp_client.py HOST PORT
"""
import socket
import sys

client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(30)
client.sendto(b"Hello UDP server", (sys.argv[1], int(sys.argv[2])))
data, address = client.recvfrom(1024)
print("{}:{}".format(*address), data.decode("ascii"))
client.close()
