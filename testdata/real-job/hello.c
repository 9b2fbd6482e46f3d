#include <stdio.h>

int main(void) {
    puts("hello from a program that another stage compiled");
    return 0;
}
