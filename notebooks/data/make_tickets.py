"""Write `tickets.csv`, the small task of lesson 07: which team gets a ticket?

    python notebooks/data/make_tickets.py

The tickets were written for this course, by hand, 36 for each of four teams. Some name their
subject, some only describe what happens, as real ones do. The first four of each team are the
examples that a few-shot prompt may show; the other 32 are held out, and only measured on.
Licence: CC BY 4.0, as all text of the course.
"""

from __future__ import annotations

import csv
from pathlib import Path

EXAMPLES = 4  # of each team, the first ones

TICKETS = {
    "network": """
The connection to the server drops every few minutes.
Packets between the two offices get lost since this morning.
The Wi-Fi in the meeting room is very slow.
Our web page answers from inside the office but not from outside.
Ping to the gateway times out.
The VPN tunnel goes down when a second person connects.
DNS does not resolve the name of the new host.
Video calls freeze whenever somebody downloads something.
The load balancer cannot reach two of the five nodes.
Port 443 seems to be blocked by the firewall.
Latency to the data center in Asia has doubled.
The router restarts by itself at night.
Requests between the services time out, but both services are up.
The cable in room 12 is broken, no link light.
Our provider changed the IP address and nothing is reachable.
Downloads stop at exactly 64 KB on the wireless network.
The proxy returns a gateway timeout for every site.
Half of the requests are sent to a host that no longer exists.
The switch on the third floor shows errors on all ports.
A new route is missing, so traffic goes the long way round.
Bandwidth tests show 5 Mbit/s instead of 500.
The certificate is fine but the handshake never completes from home.
Multicast does not get through to the second subnet.
The phone app says that there is no internet, on every phone in the building.
TCP connections are reset after sixty seconds of silence.
The uplink is saturated every day at nine.
We cannot reach the printer since it was moved to another subnet.
The ingress refuses connections from the new address range.
Roaming between access points cuts every call.
IPv6 addresses are handed out, but nothing can be reached with them.
The monitoring lost contact with all hosts in rack seven.
Emails arrive with a delay of an hour because the mail relay cannot be contacted.
Only one direction of the link works.
The tunnel to the cloud shows high jitter and packet loss.
Two machines have the same IP address.
The site loads in one second by cable and in thirty by wireless.
""",
    "storage": """
The disk on the build server is full.
I deleted a folder by mistake, please restore it from the backup.
Writing to the shared drive fails with a quota error.
The nightly backup has not finished for three days.
The volume cannot be mounted after the restart.
The RAID array reports a failed drive.
My home directory shows 0 bytes free.
Old log files fill the partition again.
The database cannot grow its files any more.
The file server shows yesterday's version of every document.
Snapshots take up more space than the data itself.
An SSD in node four has reached its end of life.
Reading large files has become very slow, the disk is always busy.
The bucket refuses new objects.
A folder with 2 TB of images must be moved to the archive.
The file system was remounted read only.
We need 500 GB more for the new project.
Checksum errors appear when the archive is read.
The persistent volume claim stays pending.
Files saved today are gone after the reboot.
The tape library does not accept the new tapes.
Inodes are used up although there is space left.
Copying a file ends in an input/output error.
The thumbnails were deleted together with the originals, can you get them back?
The disk makes clicking noises.
The export folder can no longer be written to.
How long are deleted documents kept before they are gone for good?
Replication of the data to the second site is two days behind.
The cache directory eats all the space of the root partition.
Our object store returns an older copy of the file.
The spreadsheet will not save, it says there is not enough space.
Please double the size of the volume under the database.
The restore test of the backup failed.
Several blocks of the drive cannot be read.
The attachment store has grown by 80 % in a month.
Moving the data to the new array would take nine days at this speed.
""",
    "login": """
I forgot my password and cannot sign in.
My account is locked after three wrong attempts.
The code from the authenticator app is never accepted.
A new colleague needs an account by Monday.
Please give me access to the payroll folder, I get permission denied.
Single sign-on sends me back to the start page again and again.
The reset link in the email has expired.
My user name was changed and nothing lets me in now.
I got a new phone and lost my second factor.
It says that my session has expired as soon as I have entered my password.
The intern can see documents that only managers should see.
The service account's key was revoked, the job cannot authenticate.
I am asked to change my password every day.
The fingerprint reader does not know me any more.
SSH refuses my key since the update.
Please remove the rights of a colleague who left last week.
My badge opens the door, but the computer says unknown user.
I cannot log in to the ticket system, so I write from a friend's account.
The API token that I made yesterday is answered with 401.
Which role do I need to approve orders?
After the marriage my name changed, and the old user name is still shown.
The admin page says forbidden although I am an administrator.
Two-factor messages do not arrive on my number.
Somebody signed in to my account from another country.
The guest account does not work in the training room.
I need to act for my boss during her holidays.
The portal does not recognise my certificate card.
My password contains an umlaut and is refused on one machine only.
All members of the new team get access denied in the wiki.
The security question has an answer that I never gave.
Can you extend my account until the end of the project?
The login page says that my user does not exist.
I was signed out everywhere and my password is no longer right.
Our group should be able to edit, not only to read.
The one-time code comes ten minutes too late to be used.
My trial user should become a normal user with the same name.
""",
    "billing": """
We were charged twice for the same month.
The invoice shows the wrong company name.
How do I change from the monthly plan to the yearly plan?
Our credit card was declined although it is valid.
Please refund the licence that we never used.
The invoice for March is missing.
The price on the bill is higher than the one in the offer.
We need the VAT number on every invoice.
Can we pay by bank transfer instead of by card?
The discount for schools was not applied.
I cancelled in May and was still billed in June.
What does one more user cost per month?
Why did the cost of the cloud machines triple last week?
The receipt was sent to an address that we no longer use.
Please send a quote for fifty more seats.
We got a reminder for a bill that was paid long ago.
The amount is in dollars, we agreed on euros.
Our budget allows 2,000 a month, please set a limit.
Who approved the purchase of the new graphics cards?
The free trial ended early and we were charged.
The cost report does not show which team spent the money.
Please split the bill between two departments.
The tax rate on the last bill is wrong.
We would like to end our subscription at the end of the year.
The coupon code is not accepted at the checkout.
The payment page asks for a purchase order number that we do not have.
How many tokens are included in the basic price?
The refund you promised has not arrived.
We were moved to a more expensive plan without being asked.
The reserved machines are idle, can we return them and get the money back?
The yearly statement lists a product that we do not know.
Our accounting needs all receipts of the last quarter in one file.
Please put the new cost centre on the order.
The overage fee seems too high for what we used.
A late fee was added although we paid on time.
Is there a cheaper price for non-profit organisations?
""",
}


def main() -> None:
    """Write the file beside this one: columns part (example or held-out), team, ticket."""
    target = Path(__file__).with_name("tickets.csv")
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["part", "team", "ticket"])
        lines = {team: text.strip().splitlines() for team, text in TICKETS.items()}
        for number in range(len(lines["network"])):
            part = "example" if number < EXAMPLES else "held-out"
            writer.writerows([part, team, texts[number]] for team, texts in lines.items())


if __name__ == "__main__":
    main()
