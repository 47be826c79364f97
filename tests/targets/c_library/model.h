// A model behind a C interface that reports failures by its return value.
#ifndef MODEL_H
#define MODEL_H

typedef struct model *model_handle;

int model_create(int columns, model_handle *out);
// 0, or -1 for a wrong number of columns.
int model_predict(model_handle handle, const double *values, int rows, int columns, double *out);
void model_free(model_handle handle);

#endif
