/* Counts the words of a file: words FILE */
#include <ctype.h>
#include <stdio.h>

int main(int argc, char **argv) {
    FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (file == NULL) {
        fprintf(stderr, "usage: words FILE\n");
        return 2;
    }
    long count = 0;
    int inside = 0;
    for (int c; (c = getc(file)) != EOF; inside = !isspace(c))
        count += !inside && !isspace(c);
    printf("%ld\n", count);
    return fclose(file) != 0;
}
