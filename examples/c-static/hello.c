/* Says what it runs on, with no library beside it. */
#include <stdio.h>
#include <sys/utsname.h>

int main(int argc, char **argv) {
    struct utsname host;
    if (uname(&host) != 0) {
        perror("uname");
        return 1;
    }
    printf("hello from %s on %s\n", argc > 1 ? argv[1] : "an image of one file", host.machine);
    return 0;
}
