/* Calls the exported model for the two batch sizes in batches.bin, and writes the results as raw bytes.

   batches.bin:  for each batch n (int64), X (n*4 doubles), y (n), w (4), b (1)
   results.bin:  for each batch the value (1 double), grad_w (4), grad_b (1)                        */
#include <stdio.h>
#include <stdlib.h>

#include "logistic.h"

enum { FEATURES = 4 };

static double *read_doubles(FILE *file, size_t count)
{
    double *data = malloc((count ? count : 1) * sizeof *data);
    if (data == NULL || fread(data, sizeof *data, count, file) != count) {
        fprintf(stderr, "batches.bin is too short\n");
        exit(1);
    }
    return data;
}

static void run(FILE *batches, FILE *results, int64_t n)
{
    double *X = read_doubles(batches, (size_t)n * FEATURES);
    double *y = read_doubles(batches, (size_t)n);
    double *w = read_doubles(batches, FEATURES);
    double *b = read_doubles(batches, 1);
    double value, grad_w[FEATURES], grad_b;

    logistic_args args = {0};
    args.n = n;
    args.X = X;
    args.y = y;
    args.w = w;
    args.b = b;
    args.out = &value;
    args.grad_w = grad_w;
    args.grad_b = &grad_b;
    args.workspace = malloc(logistic_workspace(&args));

    if (logistic_value_and_grad(&args) != LOGISTIC_OK) {
        fprintf(stderr, "logistic_value_and_grad failed\n");
        exit(1);
    }
    printf("n = %lld: loss %.6f, d loss / d b = %.6f\n", (long long)n, value, grad_b);
    fwrite(&value, sizeof value, 1, results);
    fwrite(grad_w, sizeof grad_w, 1, results);
    fwrite(&grad_b, sizeof grad_b, 1, results);

    args.w = NULL; /* a null pointer is refused before anything is written */
    if (logistic_value_and_grad(&args) != LOGISTIC_INVALID) {
        fprintf(stderr, "a null pointer was not refused\n");
        exit(1);
    }
    free(args.workspace);
    free(b);
    free(w);
    free(y);
    free(X);
}

int main(int argc, char **argv)
{
    FILE *batches = argc == 3 ? fopen(argv[1], "rb") : NULL;
    FILE *results = argc == 3 ? fopen(argv[2], "wb") : NULL;
    int64_t n;

    if (batches == NULL || results == NULL) {
        fprintf(stderr, "usage: main batches.bin results.bin\n");
        return 1;
    }
    while (fread(&n, sizeof n, 1, batches) == 1) {
        run(batches, results, n);
    }
    fclose(batches);
    return fclose(results) == 0 ? 0 : 1;
}
